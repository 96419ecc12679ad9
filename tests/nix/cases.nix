# What owners write.
let
  stored = "${builtins.storeDir}/qb0dxs6kwpvbyrsjxn7i6cnbzc1cgrvn-secret";
  proposal = {
    submitter = "alice=UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";
    workload = "checksum";
    expires = "90d";
    cpu = 2;
  };
in {
  nixos = {
    nothing = {};
    plain.services.lender.enable = true;
    fleet.services.lender = {
      enable = true;
      settings = {
        url = "tls://nats.lab:4222";
        slots = 2;
        mqtt.url = "mqtt://house.lab";
      };
      credentialsFile = "/run/agenix/lenderd";
      mqttCredentialsFile = "/run/agenix/mqtt";
      proposals.alice = proposal;
      agent.enable = true;
    };
    # The owner's own word on a unit goes before what is shipped, and the rest stays.
    changed = {
      services.lender.enable = true;
      services.lender.commands = null;
      systemd.services.lenderd.serviceConfig.MemoryMax = "2G";
    };
    broker.services.lender = {
      broker = {
        enable = true;
        settings.url = "nats://127.0.0.1:4222";
        credentialsFile = "/run/secrets/lender-broker";
      };
      nats.enable = true;
    };
    deployment.services.lender.nats = {
      enable = true;
      configFile = "/var/lib/nats/server/server.conf";
      openFirewall = true;
    };
    open-nats.services.lender.nats = {
      enable = true;
      host = "0.0.0.0";
    };
    broker-secret-in-settings.services.lender.broker = {
      enable = true;
      settings.credentials = "/run/secrets/lender-broker";
    };
  };
  home = {
    plain.services.lender.enable = true;
    secret.services.lender = {
      enable = true;
      credentialsFile = "\${XDG_RUNTIME_DIR}/agenix/lenderd";
      proposals.alice = proposal;
    };
    changed = {
      services.lender.enable = true;
      systemd.user.services.lenderd.Service.MemoryMax = "2G";
    };
    agent.services.lender.agent.enable = true;
  };
  mac-home = {
    plain.services.lender.enable = true;
    secret.services.lender = {
      enable = true;
      credentialsFile = "/Users/ann/.config/agenix/lenderd";
    };
    variable.services.lender = {
      enable = true;
      credentialsFile = "\${XDG_RUNTIME_DIR}/agenix/lenderd";
    };
  };
  darwin = {
    plain.services.lender.enable = true;
    fleet.services.lender = {
      enable = true;
      credentialsFile = "/run/agenix/lenderd";
      proposals.alice = proposal;
      settings.slots = 1;
    };
  };
  clan = {
    whole = {
      broker.attic.serverConfig = "/var/lib/nats/server/server.conf";
      lender = {
        attic.settings.slots = 1;
        pi = {
          promptCredentials = true;
          proposals.alice = proposal;
        };
      };
      submitter = {
        attic = {};
        desk.url = "tls://nats.lab:4222";
      };
    };
    alone = {
      broker.attic = {};
      lender.attic = {};
      submitter = {};
    };
    unreachable = {
      broker.attic = {};
      lender = {
        attic = {};
        pi = {};
      };
      submitter = {};
    };
  };
  refused = {
    nixos = let
      on = more: {services.lender = {enable = true;} // more;};
    in {
      # A path of Nix, a text that leads into the store, one that leads nowhere in particular.
      secret-as-path = on {credentialsFile = ./cases.nix;};
      secret-in-store = on {settings.credentials = stored;};
      secret-of-mqtt = on {
        settings.mqtt = {
          url = "mqtt://house.lab";
          credentials = ./cases.nix;
        };
      };
      secret-relative = on {settings.credentials = "creds";};
      no-such-option = on {grants.alice = proposal;};
      endless-proposal = on {proposals.alice = removeAttrs proposal ["expires"];};
    };
    home = {
      user-secret-as-path.services.lender = {
        enable = true;
        settings.credentials = ./cases.nix;
      };
      # systemd would look for a credential of that name that it has been handed itself.
      user-secret-relative.services.lender = {
        enable = true;
        credentialsFile = "creds";
      };
      user-secret-in-store.services.lender = {
        enable = true;
        settings.credentials = stored;
      };
    };
  };
}
