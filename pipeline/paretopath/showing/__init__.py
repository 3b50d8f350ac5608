"""What people see of runs: reports, tracking, profiles, measurements. They only listen."""
