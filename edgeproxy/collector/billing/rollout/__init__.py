"""Who is charged: roll-out steps and their gates (pure), and the switch at run time."""
