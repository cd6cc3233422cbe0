"""The scheduler: it reads /etc/backy.conf and runs the ordinary commands when their time has come."""
