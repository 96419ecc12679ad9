# A Mac without anybody at it: lenderd from boot on.
{
  services.lender = {
    enable = true;
    settings.url = "tls://nats.lab:4222";
  };
}
