"""The network: a shared ViT, a global branch over whole frames and a local branch over six body parts."""
