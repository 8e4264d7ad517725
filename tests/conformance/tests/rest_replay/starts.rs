//! What each flow starts from.

use crate::world::{Seed, Start};

const NONE: Start = Start {
    admin: true,
    bob: false,
    base: 0,
    workspaces: &[],
    renames: false,
    edited: false,
    prebuilds: false,
};

const SEED: Seed = Seed {
    name: "",
    owner: "me",
    template: "params",
    then: &[],
    reason: "initiator",
    connected: false,
    autostart: false,
    values: &[("project", "alpha"), ("gpu", "true")],
    building: false,
    id: "",
    build: "",
};

const DEV: Seed = Seed {
    name: "dev",
    template: "base",
    connected: true,
    id: "c6a3daf3-0dda-454d-bf1a-3fd203325f52",
    ..SEED
};
const P1: Seed = Seed {
    name: "p1",
    id: "008a5a42-7cec-4bcb-8bc4-5fb0b258b16e",
    ..SEED
};
const P2: Seed = Seed {
    name: "p2",
    values: &[
        ("project", "beta"),
        ("cpus", "8"),
        ("region", "us"),
        ("gpu", "false"),
    ],
    id: "b82478d3-1745-4a2b-a22e-81ddb53364e4",
    ..SEED
};
const P3: Seed = Seed {
    name: "p3",
    id: "e63ab264-cb77-458f-ab4d-864aedf092d9",
    ..SEED
};
const P4: Seed = Seed {
    name: "p4",
    id: "d6f4b29e-1712-4d34-9096-40529397d9d4",
    ..SEED
};
const H1: Seed = Seed {
    name: "h1",
    template: "hang",
    id: "d6fda964-a557-4c8a-977f-a887bdc9922c",
    build: "724b6e5e-05f6-4c15-9493-562cd5819d2d",
    ..SEED
};
const FAIL1: Seed = Seed {
    name: "fail1",
    template: "applyfail",
    id: "f1404fb8-1f77-47c1-810a-3b64d9bc141b",
    build: "bb4fa78d-f4f7-43a6-ba99-2c25c46d84f6",
    ..SEED
};
const W1: Seed = Seed {
    name: "w1",
    owner: "bob",
    template: "empty",
    id: "59c479f6-e9b2-4024-b491-57553fc3a861",
    ..SEED
};

const BY_CLI: &[&str] = &["stop", "start"];

pub fn start(flow: &str) -> Start {
    match flow {
        "login-first-user" => Start {
            admin: false,
            ..NONE
        },
        "organizations" => Start { bob: true, ..NONE },
        "create-plain" => Start { base: 1, ..NONE },
        "list-show" => Start {
            bob: true,
            base: 1,
            workspaces: &[
                Seed {
                    autostart: true,
                    ..DEV
                },
                P1,
                P2,
                P3,
                P4,
                Seed {
                    then: &["stop"],
                    ..FAIL1
                },
                H1,
                W1,
            ],
            ..NONE
        },
        "ssh" => Start {
            base: 3,
            workspaces: &[
                Seed {
                    then: BY_CLI,
                    reason: "cli",
                    ..DEV
                },
                Seed {
                    then: &["stop"],
                    ..P1
                },
            ],
            ..NONE
        },
        "ping-speedtest" | "port-forward" => Start {
            base: 3,
            workspaces: &[Seed {
                then: BY_CLI,
                reason: "ssh_connection",
                ..DEV
            }],
            ..NONE
        },
        "config-ssh" | "workspaces-query" => Start {
            bob: true,
            base: 3,
            workspaces: &[
                Seed {
                    then: BY_CLI,
                    reason: "ssh_connection",
                    ..DEV
                },
                Seed {
                    then: BY_CLI,
                    reason: "ssh_connection",
                    ..P1
                },
                Seed {
                    then: &["stop", "delete"],
                    ..FAIL1
                },
                H1,
                Seed {
                    then: &["stop"],
                    ..P2
                },
                W1,
            ],
            ..NONE
        },
        "watch-streams" => Start {
            base: 2,
            workspaces: &[Seed {
                then: BY_CLI,
                reason: "cli",
                ..DEV
            }],
            ..NONE
        },
        "lifecycle" => Start {
            base: 2,
            workspaces: &[
                DEV,
                P1,
                Seed {
                    then: &["stop"],
                    ..P2
                },
            ],
            ..NONE
        },
        "delete" => Start {
            base: 2,
            workspaces: &[
                P3,
                Seed {
                    then: &["stop", "delete"],
                    ..FAIL1
                },
            ],
            ..NONE
        },
        "errors" | "editor-rest" => Start {
            bob: true,
            base: 3,
            workspaces: &[
                Seed {
                    then: BY_CLI,
                    reason: "ssh_connection",
                    ..DEV
                },
                W1,
            ],
            ..NONE
        },
        "agent-http" => Start {
            base: 3,
            workspaces: &[DEV],
            renames: true,
            ..NONE
        },
        "rename" => Start {
            base: 3,
            workspaces: &[
                DEV,
                Seed {
                    then: &["stop"],
                    ..P2
                },
            ],
            renames: true,
            ..NONE
        },
        "state-push" => Start {
            base: 3,
            workspaces: &[Seed {
                then: BY_CLI,
                reason: "ssh_connection",
                ..P1
            }],
            renames: true,
            edited: true,
            ..NONE
        },
        "build-cancel" => Start {
            base: 1,
            workspaces: &[
                FAIL1,
                Seed {
                    building: true,
                    ..H1
                },
            ],
            ..NONE
        },
        "prebuild-claim" => Start {
            base: 1,
            prebuilds: true,
            ..NONE
        },
        _ => NONE,
    }
}
