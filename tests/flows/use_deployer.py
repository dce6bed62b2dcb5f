"""Compiles a flow for Argo Workflows by Metaflow's Deployer, and prints the workflow template."""

import json
import sys

from metaflow import Deployer

deployed = Deployer(sys.argv[1], pylint=False, show_output=False).argo_workflows().create(only_json=True)
print(json.dumps(deployed.workflow_template))
