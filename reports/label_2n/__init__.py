"""The label-2n paper: 2N labelling against NULL, ADV, CDAEC and DISTILL, with and without a filter."""
