"""DICOM files of one's own: pictures made for the eye, and of the headers only what stands on a list."""
