"""What belongs to the render workload on the submitter's side."""
