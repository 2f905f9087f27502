import type { XmlElement } from '@rgrove/parse-xml'
import { NestvmError } from '../../store/error.ts'
import { child, childrenNamed, descendants, parseSource, type Source, textOf } from './xml.ts'

/** One virtual machine of a scenario. */
export interface ScenarioVm {
  element: XmlElement
  id: string
  /** Its name, else `VM` and its id. */
  name: string
  kind: 'service' | 'pre-launched' | 'post-launched'
  /** The physical CPUs that it is given; undefined where ACRN decides. */
  cpus: number[] | undefined
  /** Whether the scenario lets it be a hypervisor. */
  nested: boolean
}

/** What ACRN's tools build a hypervisor from. Layout 2 is that of v2.5 to v2.7, layout 3 that of v3.0 on. */
export interface Scenario {
  source: Source
  layout: 2 | 3
  features: XmlElement
  vms: ScenarioVm[]
  /** A debug build has a console, which needs a physical CPU that takes timer interrupts. */
  debug: boolean
}

/** Throws `BAD_SCENARIO` for what is no scenario of ACRN v2.5 or later. */
export function parseScenario(text: string, path: string): Scenario {
  const source = parseSource(text, path)
  const { root } = source
  const features = child(child(root, 'hv'), 'FEATURES')
  const elements = childrenNamed(root, 'vm')
  if (root.name !== 'acrn-config' || !features || elements.length === 0) {
    throw bad(path, 'is no scenario: it has no acrn-config with hv, FEATURES and vm')
  }
  const layout = elements.some((vm) => child(vm, 'load_order')) ? 3 : 2
  if (layout === 2 && !child(features, 'NVMX_ENABLED')) {
    throw bad(path, 'has no NVMX_ENABLED: it is of an ACRN before v2.5, which knows no nesting')
  }
  const hv = child(root, 'hv')
  const debug =
    layout === 3
      ? textOf(child(hv, 'BUILD_TYPE')) !== 'release'
      : textOf(child(child(hv, 'DEBUG_OPTIONS'), 'RELEASE')) !== 'y'
  return { source, layout, features, debug, vms: elements.map((element) => vmOf(element, layout)) }
}

/** The one VM that ACRN offers nesting to. Throws `ACRN_FORBIDDEN` where there is none. */
export function serviceVm({ vms }: Scenario, path: string): ScenarioVm {
  const [vm, ...others] = vms.filter(({ kind }) => kind === 'service')
  if (others.length > 0) throw bad(path, 'has more than one Service VM')
  if (vm) return vm
  throw new NestvmError(
    'ACRN_FORBIDDEN',
    `${path} has no Service VM: ACRN offers nested virtualization to that alone, not to pre-launched VMs`,
    {
      hint: 'take a scenario with a Service VM',
      details: { path },
    },
  )
}

/** By name or id. Throws `BAD_CPUS`. */
export function vmNamed({ vms }: Scenario, name: string): ScenarioVm {
  const found = vms.find((vm) => vm.name === name) ?? vms.find((vm) => vm.id === name)
  if (found) return found
  throw new NestvmError('NO_SUCH_VM', `the scenario has no VM ${name}`, {
    hint: `it has ${vms.map((vm) => vm.name).join(', ')}`,
    exitStatus: 2,
  })
}

/** The texts of the Service VM's flags, in layout 2. */
export const guestFlags = (vm: XmlElement): XmlElement[] => childrenNamed(child(vm, 'guest_flags') ?? vm, 'guest_flag')

function vmOf(element: XmlElement, layout: 2 | 3): ScenarioVm {
  const id = element.attributes.id ?? ''
  const affinity = child(element, 'cpu_affinity')
  const cpus =
    affinity &&
    descendants(affinity, 'pcpu_id').flatMap((cpu) => (/^\d+$/.test(textOf(cpu)) ? [Number(textOf(cpu))] : []))
  return {
    ...{ element, id, name: textOf(child(element, 'name')) || `VM${id}` },
    kind: kindOf(textOf(child(element, layout === 3 ? 'load_order' : 'vm_type'))),
    cpus: cpus && cpus.length > 0 ? cpus : undefined,
    nested:
      layout === 3
        ? textOf(child(element, 'nested_virtualization_support')) === 'y'
        : guestFlags(element).some((flag) => textOf(flag) === 'GUEST_FLAG_NVMX_ENABLED'),
  }
}

/** Layout 2 has kinds like SOS_VM (SERVICE_VM since v2.7), PRE_RT_VM, SAFETY_VM, POST_STD_VM, KATA_VM. */
function kindOf(type: string): ScenarioVm['kind'] {
  if (type === 'SOS_VM' || type === 'SERVICE_VM') return 'service'
  return /^(PRE_|SAFETY_)/.test(type) ? 'pre-launched' : 'post-launched'
}

function bad(path: string, what: string): NestvmError {
  return new NestvmError('BAD_SCENARIO', `${path} ${what}`, { details: { path } })
}
