"""Plans, the plan compiler and the monitor's client: exec, attach, logs."""
