"""All breakages, by the part of the cluster that is broken."""

from . import absences as absences
from . import answers as answers
from . import apis as apis
from . import autoscaler as autoscaler
from . import certificates as certificates
from . import cloud as cloud
from . import controllers as controllers
from . import custom_metrics as custom_metrics
from . import definitions as definitions
from . import federation as federation
from . import gateway as gateway
from . import ingress as ingress
from . import machines as machines
from . import metrics as metrics
from . import network as network
from . import nodes as nodes
from . import pods as pods
from . import policies as policies
from . import rights as rights
from . import scheduler as scheduler
from . import server as server
from . import storage as storage
from . import vpa as vpa
from . import workloads as workloads
