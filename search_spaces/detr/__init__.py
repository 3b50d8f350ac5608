"""DETR, its relatives and two-stage detectors of mmdet as search spaces."""
