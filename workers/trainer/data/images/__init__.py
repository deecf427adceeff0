"""Images: the reader of files, synthetic scenes, prompts."""
