"""The application's composition: flows, their config, and the command line."""
