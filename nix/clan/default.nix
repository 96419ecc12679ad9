# A clan service with three roles: `broker` on one machine, `lender` where something is lent, and
# `submitter` where jobs come from. Whose work a lender runs is said on that lender, by its owner.
{nixosModule}: let
  having = role: roles: builtins.attrNames (roles.${role}.machines or {});

  # Where the machines of an instance find its server, unless a role was told.
  address = {
    machine,
    roles,
    settings,
    ...
  }: let
    brokers = having "broker" roles;
  in
    if settings.url != null
    then settings.url
    else if brokers == []
    then throw "this instance of lender has no machine with the role broker: set `url`"
    else if builtins.head brokers == machine.name
    then "nats://127.0.0.1:4222"
    else "nats://${builtins.head brokers}:4222";

  url = lib:
    lib.mkOption {
      type = lib.types.nullOr lib.types.str;
      default = null;
      example = "tls://nats.lab:4222";
      description = "Where the NATS server is; null: on the machine with the role broker, by its name.";
    };
in {
  _class = "clan.service";
  manifest = {
    name = "lender";
    description = "Lend what machines don't use, as far as their owners agree";
    categories = ["System"];
    readme = builtins.readFile ./README.md;
  };

  roles = {
    broker = {
      description = "Runs the NATS server and gives jobs to the machines that lend.";
      interface = {lib, ...}: {
        options = {
          settings = lib.mkOption {
            type = lib.types.attrsOf lib.types.anything;
            default = {};
            description = "What stands in broker.toml.";
          };
          serverConfig = lib.mkOption {
            type = lib.types.nullOr lib.types.str;
            default = null;
            example = "/var/lib/nats/server/server.conf";
            description = ''
              The server.conf that `lender-broker init` wrote, for machines other than this one; its
              port is then opened. null: the server is for this machine alone.
            '';
          };
        };
      };
      perInstance = {
        machine,
        roles,
        settings,
        ...
      }: {
        nixosModule = {
          imports = [nixosModule];
          assertions = [
            {
              assertion =
                settings.serverConfig
                != null
                || builtins.all (name: name == machine.name) (having "lender" roles ++ having "submitter" roles);
              message = "lender: other machines reach the server by a deployment only: set serverConfig";
            }
          ];
          services.lender = {
            broker = {
              enable = true;
              inherit (settings) settings;
            };
            nats = {
              enable = true;
              configFile = settings.serverConfig;
              openFirewall = settings.serverConfig != null;
            };
          };
        };
      };
    };

    lender = {
      description = "Lends what it does not use.";
      interface = {lib, ...}: {
        options = {
          url = url lib;
          settings = lib.mkOption {
            type = lib.types.attrsOf lib.types.anything;
            default = {};
            description = "What stands in lenderd.toml.";
          };
          proposals = lib.mkOption {
            type = lib.types.attrsOf (lib.types.attrsOf lib.types.anything);
            default = {};
            description = "Grants that the machine's owner is asked for: services.lender.proposals.";
          };
          promptCredentials = lib.mkOption {
            type = lib.types.bool;
            default = false;
            description = ''
              Have `clan vars generate` ask for the file that lets the machine in. Otherwise
              `lender enroll` gets it, on the machine.
            '';
          };
        };
      };
      perInstance = {settings, ...} @ instance: {
        nixosModule = {
          config,
          lib,
          ...
        }: {
          imports = [nixosModule];
          services.lender = {
            enable = true;
            settings = {url = address instance;} // settings.settings;
            inherit (settings) proposals;
            credentialsFile =
              lib.mkIf settings.promptCredentials
              config.clan.core.vars.generators.lender.files.credentials.path;
          };
          clan.core.vars.generators = lib.mkIf settings.promptCredentials {
            lender = {
              prompts.credentials = {
                description = "What the NATS server lets this machine in by (.creds)";
                type = "multiline-hidden";
                persist = true;
              };
            };
          };
        };
      };
    };

    submitter = {
      description = "Has the commands to submit jobs with.";
      interface = {lib, ...}: {options.url = url lib;};
      perInstance = instance: {
        nixosModule = {config, ...}: {
          imports = [nixosModule];
          environment = {
            systemPackages = [config.services.lender.package];
            variables.LENDER_URL = address instance;
          };
        };
      };
    };
  };
}
