# localemu with what SQS, SNS, KMS and Secrets Manager need: the same packages that integration/servers installs natively.
FROM python:3.13-slim
COPY integration/servers/localemu.txt /localemu.txt
RUN pip install --no-cache-dir --no-deps --requirement /localemu.txt
# Reached through the published port only, which compose.yaml binds to the loopback interface.
ENV GATEWAY_LISTEN=0.0.0.0:4566 \
    GATEWAY_SERVER=hypercorn \
    SQS_ENDPOINT_STRATEGY=path \
    SERVICES=sqs,sns,kms,secretsmanager \
    STRICT_SERVICE_LOADING=1 \
    DNS_ADDRESS=0 \
    DISABLE_EVENTS=1 \
    SKIP_SSL_CERT_DOWNLOAD=1
CMD ["python", "-m", "localemu.runtime.main"]
