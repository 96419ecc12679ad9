# A machine that nobody logs in to, with its own broker and NATS server.
{
  services.lender = {
    enable = true;
    settings = {
      slots = 2;
      labels = ["site:attic"];
    };
    broker.enable = true;
    nats.enable = true;
  };
}
