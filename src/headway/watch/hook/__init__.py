"""The folder that `headway watch` puts in front of PYTHONPATH: its `sitecustomize` starts the watching."""
