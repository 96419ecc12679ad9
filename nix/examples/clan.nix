# A clan whose machines with the tag `lending` lend, and whose desks submit. Part of `clan.inventory`.
{
  instances.lender = {
    module = {
      input = "lender";
      name = "lender";
    };
    roles = {
      # Made there by `lender-broker init`; machines but attic reach the server by it.
      broker.machines.attic.settings.serverConfig = "/var/lib/nats/server/server.conf";
      lender = {
        tags.lending = {};
        # `clan vars generate` asks for the secret of each; it is handed over by its place.
        settings.promptCredentials = true;
        machines.attic.settings.settings.slots = 1;
      };
      submitter.tags.desks = {};
    };
  };
}
