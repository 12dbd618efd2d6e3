"""What we use of botocore, which has no types."""
