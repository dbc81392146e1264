"""What the plugin does for a test suite: its server's options, what makes tests fail, what failed ones are told."""
