// metrics-server as upstream's cmd/metrics-server starts it, less the lower bound on how often it asks the kubelets.
//
// Upstream refuses less than 10 s between two scrapes, and is ready after two. A cluster that lives for minutes would
// wait for that at its start, and so would everything that follows its load. METRIC_RESOLUTION says how often to ask;
// upstream's own program, which may stand in for this one, does not know that variable and keeps to its option.
package main

import (
	"os"
	"time"

	"github.com/spf13/pflag"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/klog/v2"

	"sigs.k8s.io/metrics-server/cmd/metrics-server/app/options"
)

func main() {
	if err := run(); err != nil {
		klog.ErrorS(err, "metrics-server ends")
		os.Exit(1)
	}
}

func run() error {
	opts := options.NewOptions()
	flags := pflag.NewFlagSet("metrics-server", pflag.ExitOnError)
	for _, part := range opts.Flags().FlagSets {
		flags.AddFlagSet(part)
	}
	if err := flags.Parse(os.Args[1:]); err != nil {
		return err
	}
	for _, err := range opts.Validate() {
		return err
	}
	config, err := opts.ServerConfig()
	if err != nil {
		return err
	}
	if resolution, found := os.LookupEnv("METRIC_RESOLUTION"); found {
		if config.MetricResolution, err = time.ParseDuration(resolution); err != nil {
			return err
		}
	}
	server, err := config.Complete()
	if err != nil {
		return err
	}
	return server.RunUntil(genericapiserver.SetupSignalHandler())
}
