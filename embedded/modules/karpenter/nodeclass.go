package main

import (
	"slices"

	"github.com/awslabs/operatorpkg/status"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
)

var version = schema.GroupVersion{Group: "embedded.clusterproof.dev", Version: "v1"}

func init() {
	metav1.AddToGroupVersion(scheme.Scheme, version)
	scheme.Scheme.AddKnownTypes(version, &NodeClass{}, &NodeClassList{})
}

// NodeClass says what nodes of a NodePool are like. Karpenter wants one; all nodes here are alike, so it says nothing.
type NodeClass struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Status NodeClassStatus `json:"status,omitempty"`
}

// NodeClassStatus has a condition Ready, which the manifest sets.
type NodeClassStatus struct {
	Conditions []status.Condition `json:"conditions,omitempty"`
}

// NodeClassList is what a list of them is answered by.
type NodeClassList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []NodeClass `json:"items"`
}

func (n *NodeClass) GetConditions() []status.Condition {
	return n.Status.Conditions
}

func (n *NodeClass) SetConditions(conditions []status.Condition) {
	n.Status.Conditions = conditions
}

func (n *NodeClass) StatusConditions(options ...status.ForOption) status.ConditionSet {
	return status.NewReadyConditions().For(n, options...)
}

func (n *NodeClass) DeepCopyObject() runtime.Object {
	copied := *n
	n.ObjectMeta.DeepCopyInto(&copied.ObjectMeta)
	copied.Status.Conditions = slices.Clone(n.Status.Conditions)
	return &copied
}

func (l *NodeClassList) DeepCopyObject() runtime.Object {
	copied := NodeClassList{TypeMeta: l.TypeMeta}
	l.ListMeta.DeepCopyInto(&copied.ListMeta)
	for i := range l.Items {
		copied.Items = append(copied.Items, *l.Items[i].DeepCopyObject().(*NodeClass))
	}
	return &copied
}
