"""A real cluster from plain processes: builder, images, launcher, network and add-ons."""
