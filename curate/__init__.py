"""Curate: from documents and benchmark files to a data set with honest unanswerable rows."""
