"""moto, for what of AWS is neither S3 nor identity: Batch, Step Functions and DynamoDB, as the schedulers ask them."""

import json

from tests.servers.base import PYTHON, Server, boto_client, free_ports, need_packages

INSTALL = "pip install -e '.[test]'"
QUEUE = "queue"
TABLE = "foreach"


class Moto(Server):
    """moto with the job queue, roles and table that ``step-functions create`` wants to find."""

    name = "moto"

    def _start(self):
        need_packages(["moto"], INSTALL)
        (port,) = free_ports(1)
        self._spawn([PYTHON, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)])
        self._wait(lambda: self._answers(port))
        self.url = f"http://127.0.0.1:{port}"
        self._make_resources()

    def _make_resources(self):
        iam, ec2, batch, dynamodb = (boto_client(self, name) for name in ("iam", "ec2", "batch", "dynamodb"))
        self.role = iam.create_role(RoleName="role", AssumeRolePolicyDocument=json.dumps({}))["Role"]["Arn"]
        where = {
            "subnets": [ec2.describe_subnets()["Subnets"][0]["SubnetId"]],
            "securityGroupIds": [ec2.describe_security_groups()["SecurityGroups"][0]["GroupId"]],
        }
        batch.create_compute_environment(
            computeEnvironmentName="compute",
            type="MANAGED",
            computeResources={"type": "FARGATE", "maxvCpus": 4, **where},
            serviceRole=self.role,
        )
        order = [{"order": 1, "computeEnvironment": "compute"}]
        batch.create_job_queue(jobQueueName=QUEUE, state="ENABLED", priority=1, computeEnvironmentOrder=order)
        dynamodb.create_table(
            TableName=TABLE,
            KeySchema=[{"AttributeName": "pathspec", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "pathspec", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        for client in (iam, ec2, batch, dynamodb):
            client.close()

    def environment(self):
        """What Metaflow is to know; S3 has an endpoint of its own."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "METAFLOW_BATCH_JOB_QUEUE": QUEUE,
            "METAFLOW_SFN_DYNAMO_DB_TABLE": TABLE,
            "METAFLOW_SFN_IAM_ROLE": self.role,
            "METAFLOW_EVENTS_SFN_ACCESS_IAM_ROLE": self.role,
            "METAFLOW_ECS_S3_ACCESS_IAM_ROLE": self.role,
            "METAFLOW_ECS_FARGATE_EXECUTION_ROLE": self.role,
        }
