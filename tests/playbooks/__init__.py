"""The playbooks, run by Ansible over ssh and on this machine, against a real cluster."""
