"""Ways to reach people for ha-controller: webhook, slack, pagerduty, alertmanager and command, a module for each."""
