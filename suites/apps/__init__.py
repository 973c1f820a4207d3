"""What keeps applications running: Deployment, StatefulSet, DaemonSet, Job, CronJob and what goes with them."""
