"""What runs in the lab's containers: whole programs, given to the image with the tools by `python3 -c`."""
