import type { Plan, Platform, Request } from './plan.ts'

/** Platforms whose switch is outside the machine, on the level above: what to run there. */
const outsidePlatforms = ['aws', 'gcp', 'azure', 'vmware', 'virtualbox', 'xen', 'kvm'] as const
type Outside = (typeof outsidePlatforms)[number]

/** Commands for whoever runs the machine. `vm` is its name or id there. */
export function planOutside(platform: Outside, { seen, vm }: Request): Plan {
  const { where, text, notes } = recipes[platform](quoted(vm ?? placeholders[platform]))
  const has = seen.cpuFlags.has('vmx') || seen.cpuFlags.has('svm')
  return {
    platform,
    effect: 'elsewhere',
    steps: [],
    notes: [
      `run this ${where}`,
      ...notes,
      ...(has ? ['this machine has the extension already'] : []),
      ...(seen.modules.has('kvm_pvm') ? ['kvm_pvm gives this machine a /dev/kvm, but that runs no stock guests'] : []),
    ],
    summary: has
      ? `this machine shows ${seen.cpuFlags.has('vmx') ? 'vmx' : 'svm'}`
      : 'the processor’s extension has to be given to this machine from outside',
    output: text,
  }
}

export const isOutside = (platform: Platform): platform is Outside =>
  (outsidePlatforms as readonly string[]).includes(platform)

interface Recipe {
  where: string
  text: string
  notes: string[]
}

const placeholders: Record<Outside, string> = {
  ...{
    aws: 'INSTANCE_ID',
    gcp: 'INSTANCE',
    azure: 'NAME',
    vmware: 'NAME.vmx',
    virtualbox: 'NAME',
    xen: 'NAME',
    kvm: 'NAME',
  },
}

/** A word for a POSIX shell. */
const quoted = (word: string) => (/^[\w./:-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`)

const recipes: Record<Outside, (vm: string) => Recipe> = {
  // EC2 user guide, "Nested virtualization on EC2 instances".
  aws: (vm) => ({
    where: 'where the AWS command line is set up',
    text: `# Which types offer it:
aws ec2 describe-instance-types --filters Name=processor-info.supported-features,Values=nested-virtualization --query 'InstanceTypes[].InstanceType' --output text
# For an instance that there is, stopped:
aws ec2 stop-instances --instance-ids ${vm}
aws ec2 wait instance-stopped --instance-ids ${vm}
aws ec2 modify-instance-cpu-options --instance-id ${vm} --nested-virtualization enabled
aws ec2 start-instances --instance-ids ${vm}
# For a new one:
#   aws ec2 run-instances --instance-type m8i.large --cpu-options NestedVirtualization=enabled ...
`,
    notes: [
      'only some types offer it, C8i, M8i and R8i among them; on others take a .metal type, which has KVM itself',
    ],
  }),
  // Compute Engine, "Enable nested virtualization".
  gcp: (vm) => ({
    where: 'where gcloud is set up',
    text: `ZONE=\${ZONE:?say the zone of the instance}
gcloud compute instances export ${vm} --zone "$ZONE" --destination ${vm}.yaml
# Where the file has no advancedMachineFeatures yet; else add the second line there.
printf 'advancedMachineFeatures:\\n  enableNestedVirtualization: true\\n' >> ${vm}.yaml
gcloud compute instances update-from-file ${vm} --zone "$ZONE" --source ${vm}.yaml --most-disruptive-allowed-action=RESTART
# For a new one:
#   gcloud compute instances create NAME --zone "$ZONE" --machine-type n2-standard-4 --enable-nested-virtualization
`,
    notes: ['E2, memory-optimized, AMD and Arm machine types do not offer it; an organization’s policy may forbid it'],
  }),
  azure: (vm) => ({
    where: 'where the Azure command line is set up',
    text: `GROUP=\${GROUP:?say the resource group}
az vm show --resource-group "$GROUP" --name ${vm} --query '{size:hardwareProfile.vmSize, security:securityProfile.securityType}'
az vm deallocate --resource-group "$GROUP" --name ${vm}
az vm resize --resource-group "$GROUP" --name ${vm} --size Standard_D4s_v5
az vm start --resource-group "$GROUP" --name ${vm}
`,
    notes: [
      'there is no switch: sizes of the families D and E from v3 on, with Intel processors, have it',
      'a machine of security type Trusted Launch may lack it: then it has to be made anew, with --security-type Standard',
    ],
  }),
  vmware: (vm) => ({
    where: 'on the host, with the virtual machine off',
    text: `grep -q '^vhv.enable' ${vm} || echo 'vhv.enable = "TRUE"' >> ${vm}
sed -i 's/^vhv.enable.*/vhv.enable = "TRUE"/' ${vm}
`,
    notes: ['in vSphere it is the box "Expose hardware assisted virtualization to the guest OS" of the CPU'],
  }),
  virtualbox: (vm) => ({
    where: 'on the host, with the virtual machine off',
    text: `VBoxManage modifyvm ${vm} --nested-hw-virt on\n`,
    notes: ['it takes VirtualBox 6.0 with AMD and 6.1 with Intel processors'],
  }),
  xen: (vm) => ({
    where: 'in the configuration of the domain, which has to be made anew',
    text: `# In the file of ${vm}:\ntype = "hvm"\nhap = 1\nnestedhvm = 1\n`,
    notes: ['Xen calls it experimental'],
  }),
  kvm: (vm) => ({
    where: 'on the host',
    text: `# There, once:
nestvm enable
# With libvirt, for the machine, which has to be stopped and started:
virt-xml ${vm} --edit --cpu host-passthrough
# With QEMU alone: -cpu host
`,
    notes: ['where the host is not yours, ask its owner, or have its guests emulated: nestvm run does that by itself'],
  }),
}
