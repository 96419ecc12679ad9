# A private flake: all that is about one owner's machines, and none of the product. It says which
# revision of the product these machines run, and `lender preflight --overlay .` whether they do.
{
  inputs = {
    # By its revision, so that no update moves it unseen.
    lender.url = "git+https://git.example.org/lender?rev=0000000000000000000000000000000000000000";
    nixpkgs.follows = "lender/nixpkgs";
    home-manager = {
      url = "github:nix-community/home-manager";
      inputs.nixpkgs.follows = "nixpkgs";
    };
  };

  outputs = {
    home-manager,
    lender,
    nixpkgs,
    ...
  }: {
    nixosConfigurations = {
      attic = nixpkgs.lib.nixosSystem {
        modules = [lender.nixosModules.default ./fleet.nix ./machines/attic.nix];
      };
      pi-shelf = nixpkgs.lib.nixosSystem {
        modules = [lender.nixosModules.headless-pi ./fleet.nix ./machines/pi-shelf.nix];
      };
    };
    homeConfigurations."ann@desk" = home-manager.lib.homeManagerConfiguration {
      pkgs = nixpkgs.legacyPackages.x86_64-linux;
      modules = [lender.homeModules.default ./fleet.nix ./machines/desk.nix];
    };
  };
}
