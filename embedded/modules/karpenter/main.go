// Karpenter for an embedded cluster: upstream's controllers, with a provider of nodes that are started and ended on
// this machine. The library is meant for this: whoever has machines brings a main and a provider of their own.
package main

import (
	"sigs.k8s.io/karpenter/pkg/controllers"
	"sigs.k8s.io/karpenter/pkg/controllers/state"
	"sigs.k8s.io/karpenter/pkg/operator"
	"sigs.k8s.io/karpenter/pkg/operator/options"
)

func main() {
	settings := &Settings{}
	options.Injectables = append(options.Injectables, settings)
	ctx, op := operator.NewOperator()
	provider := &Provider{settings: settings, client: op.GetClient()}
	op.WithControllers(ctx, controllers.NewControllers(
		ctx,
		op.Manager,
		op.Clock,
		op.GetClient(),
		op.EventRecorder,
		provider,
		provider,
		state.NewCluster(op.Clock, op.GetClient(), provider),
		op.InstanceTypeStore,
	)...).Start(ctx)
}
