package main

import (
	"context"
	"fmt"
	"os"

	"sigs.k8s.io/karpenter/pkg/operator/options"
)

// Settings are the flags beyond upstream's own.
type Settings struct {
	// Kubeconfig is who Karpenter is, and where the API server is.
	Kubeconfig string
	// Cluster is the embedded cluster's name.
	Cluster string
	// State is the file that says which nodes the cluster has.
	State string
	// Command is the program that adds nodes and takes them away.
	Command string
}

// AddFlags declares them beside upstream's.
func (s *Settings) AddFlags(flags *options.FlagSet) {
	flags.StringVar(&s.Kubeconfig, "kubeconfig", "", "Kubeconfig file of this program")
	flags.StringVar(&s.Cluster, "cluster", "", "The embedded cluster's name")
	flags.StringVar(&s.State, "state", "", "Its state.json")
	flags.StringVar(&s.Command, "clusterproof", "", "The program clusterproof, whose `node add` and `node remove` are run")
}

// Parse reads them. Upstream parses again for each of its controllers; the answer is the same each time.
func (s *Settings) Parse(flags *options.FlagSet, arguments ...string) error {
	if err := flags.Parse(arguments); err != nil {
		return fmt.Errorf("parsing flags, %w", err)
	}
	return os.Setenv("KUBECONFIG", s.Kubeconfig) // where upstream looks for it
}

// ToContext has nothing to add: the provider holds the settings.
func (s *Settings) ToContext(ctx context.Context) context.Context {
	return ctx
}
