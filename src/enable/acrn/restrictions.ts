import type { Scenario, ScenarioVm } from './scenario.ts'
import { child, descendants, textOf } from './xml.ts'

/** Physical CPUs that VMs are to get, by the ids of the VMs. */
export type Assignment = ReadonlyMap<string, readonly number[]>

/**
 * Why ACRN would not run nested guests with this scenario, as sentences; none where it would. With the scheduler
 * SCHED_NOOP, the only one that goes with nesting, a physical CPU runs one virtual CPU: the first that wakes stays.
 */
export function forbidden(scenario: Scenario, service: ScenarioVm, assignment: Assignment): string[] {
  const { vms, layout } = scenario
  const others = vms.filter(({ kind }) => kind !== 'service')
  const cpusOf = (vm: ScenarioVm) => assignment.get(vm.id) ?? vm.cpus
  return [
    ...others
      .filter(({ nested }) => nested)
      .map(
        ({ name, kind }) =>
          `${name} is a ${kind} VM, and is set to have nested virtualization, which ACRN offers to the Service VM alone`,
      ),
    ...(layout === 3 && (assignment.has(service.id) || service.cpus)
      ? [`${service.name} cannot be given CPUs: from v3.0 on ACRN gives the Service VM all that no pre-launched VM has`]
      : []),
    ...sharing(vms, cpusOf),
    ...bootCpuTaken(service, others, cpusOf),
    ...(eptOff(service)
      ? [`${service.name} is started with ${eptOff(service)}: KVM in it must have EPT for its guests`]
      : []),
  ]
}

/** One sentence for each set of VMs, whatever number of CPUs they share. */
function sharing(vms: readonly ScenarioVm[], cpusOf: (vm: ScenarioVm) => readonly number[] | undefined): string[] {
  const cpus = [...new Set(vms.flatMap((vm) => cpusOf(vm) ?? []))].sort((one, other) => one - other)
  const shared = new Map<string, number[]>()
  for (const cpu of cpus) {
    const users = vms.filter((vm) => cpusOf(vm)?.includes(cpu)).map(({ name }) => name)
    const key = users.join(', ')
    if (users.length > 1) shared.set(key, [...(shared.get(key) ?? []), cpu])
  }
  return [...shared].map(
    ([users, common]) =>
      `${users} share ${pcpus(common)}: that takes a scheduler that shares CPUs, but nesting goes with SCHED_NOOP alone`,
  )
}

/**
 * Where nothing is said, the Service VM has all CPUs that no pre-launched VM has. ACRN's launch scripts take a
 * post-launched VM's CPUs away from it first, which cannot be done with the one that it was booted on.
 */
function bootCpuTaken(
  service: ScenarioVm,
  others: readonly ScenarioVm[],
  cpusOf: (vm: ScenarioVm) => readonly number[] | undefined,
): string[] {
  if (cpusOf(service)) return []
  const taken = new Set(others.filter(({ kind }) => kind === 'pre-launched').flatMap((vm) => cpusOf(vm) ?? []))
  let boot = 0
  while (taken.has(boot)) boot++
  const users = others.filter((vm) => vm.kind === 'post-launched' && cpusOf(vm)?.includes(boot)).map(({ name }) => name)
  if (users.length === 0) return []
  return [
    `${users.join(', ')} share${users.length > 1 ? '' : 's'} ${pcpus([boot])} with ${service.name}, which is booted on it and cannot give it up`,
  ]
}

const pcpus = (cpus: readonly number[]) => `physical CPU${cpus.length > 1 ? 's' : ''} ${cpus.join(', ')}`

/** The argument of the Service VM's kernel that turns KVM's EPT off. */
function eptOff({ element }: ScenarioVm): string | undefined {
  const words = descendants(element, 'bootargs').flatMap((args) => textOf(args).split(/\s+/))
  return words.find((word) => /^kvm[-_]intel\.ept=[Nn0]$/.test(word))
}

/** What works but not as one may expect, as sentences. */
export function remarks(
  { layout, debug, source, vms }: Scenario,
  service: ScenarioVm,
  assignment: Assignment,
): string[] {
  const taken = new Set(
    vms.filter(({ kind }) => kind === 'pre-launched').flatMap(({ id, cpus }) => assignment.get(id) ?? cpus ?? []),
  )
  const onZero = (assignment.get(service.id) ?? service.cpus)?.includes(0) ?? !taken.has(0)
  const console =
    layout === 2 ? '--cpus LIST gives it others' : 'a pre-launched VM can be given CPU 0, or the build be a release'
  const connected =
    layout === 3
      ? descendants(source.root, 'vuart_connection').filter(
          (each) =>
            textOf(child(each, 'type')) === 'legacy' &&
            descendants(each, 'vm_name').some((name) => textOf(name) === service.name),
        ).length > 0
      : descendants(service.element, 'legacy_vuart').some(
          (each) => each.attributes.id === '1' && textOf(child(each, 'base')) !== 'INVALID_COM_BASE',
        )
  return [
    ...(debug && onZero
      ? [`the hypervisor's console of a debug build needs physical CPU 0, which ${service.name} has: ${console}`]
      : []),
    ...(connected
      ? [`${service.name} has a legacy vUART to another VM, whose interrupts do not arrive with LAPIC passthrough`]
      : []),
    'the console of the Service VM becomes a PCI vUART: see in its log which /dev/ttyS it is, and set console= in its bootargs to that',
    'its kernel needs KVM, KVM_INTEL and ACRN_GUEST built in: --kernel-config FILE checks it; nested guests are run by QEMU with -cpu host -nographic',
  ]
}
