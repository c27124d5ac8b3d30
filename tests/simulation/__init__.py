"""What tests of the operator stand on: services to ask for, a clock that jumps, and a cluster that runs pods."""
