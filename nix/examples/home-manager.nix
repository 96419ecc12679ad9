# A PC or a Mac that somebody works at: lenderd as their own service.
{
  services.lender = {
    enable = true;
    settings.url = "tls://nats.lab:4222";
    # Shown by `lender grants`; nothing runs before `lender grant --proposed alice`.
    proposals.alice = {
      submitter = "alice=UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";
      workload = "checksum";
      cpu = 2;
      mem = "1G";
      when = "away";
      expires = "90d";
    };
  };
}
