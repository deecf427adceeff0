"""The service: what runs are, their queue and life, their series, REST and pages."""
