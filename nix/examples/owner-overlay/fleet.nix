# What holds for all of them: where the fleet is, and what its owner is asked for on each.
{
  services.lender = {
    settings.url = "tls://nats.example.org:4222";
    proposals.alice = {
      submitter = "alice=UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";
      workload = "checksum";
      when = "away";
      expires = "90d";
    };
  };
}
