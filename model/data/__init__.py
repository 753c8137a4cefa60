"""From a prepared dataset to the tensors that the network takes."""
