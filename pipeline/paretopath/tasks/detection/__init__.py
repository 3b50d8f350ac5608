"""Boxes with a class: images of several sizes, mAP."""
