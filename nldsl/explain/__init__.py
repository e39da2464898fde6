"""What a program does once its derivatives are worked out, for people: equations, loops, costs."""
