"""From images to a trained network: batches on the device, distillation, loops, export."""
