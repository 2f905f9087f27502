import type { XmlElement } from '@rgrove/parse-xml'
import { NestvmError } from '../../store/error.ts'
import type { Assignment } from './restrictions.ts'
import { guestFlags, type Scenario, type ScenarioVm } from './scenario.ts'
import {
  child,
  childrenNamed,
  descendants,
  type Edit,
  edited,
  insertAfter,
  type NewElement,
  replaceContent,
  setText,
  textOf,
} from './xml.ts'

/**
 * The scenario's text with nested virtualization for its Service VM, as ACRN's tutorial on it says: the scheduler, the
 * feature, LAPIC passthrough, and the console on a PCI vUART, since a legacy one's interrupts do not arrive then.
 * Whatever is so already stays as it is.
 */
export function withNesting(scenario: Scenario, service: ScenarioVm, assignment: Assignment): string {
  const { source, features, layout, vms } = scenario
  const edits = [
    ...setText(source, need(features, 'SCHEDULER'), 'SCHED_NOOP'),
    ...(layout === 3 ? editLayout3(scenario, service) : editLayout2(scenario, service)),
    ...vms.flatMap((vm) => editCpus(scenario, vm, assignment.get(vm.id))),
  ]
  return edited(source.text, edits)
}

function editLayout2({ source, features }: Scenario, { element }: ScenarioVm): Edit[] {
  const withId = (name: string) => childrenNamed(element, name).find(({ attributes }) => attributes.id === '0')
  const legacy = child(withId('legacy_vuart'), 'base')
  const console = withId('console_vuart')
  return [
    ...setText(source, need(features, 'NVMX_ENABLED'), 'y'),
    ...addFlags({ source, element }, ['GUEST_FLAG_NVMX_ENABLED', 'GUEST_FLAG_LAPIC_PASSTHROUGH']),
    // The schemas know this value; the tutorial's text calls it INVALID_LEGACY_PIO, its example as here.
    ...(legacy ? setText(source, legacy, 'INVALID_COM_BASE') : []),
    ...setText(source, need(need(element, 'console_vuart', console), 'base'), 'PCI_VUART'),
  ]
}

/** `0` and nothing stand for no flag. */
function addFlags(
  { source, element }: Pick<Scenario, 'source'> & { element: XmlElement },
  flags: readonly string[],
): Edit[] {
  const present = guestFlags(element)
  const missing = flags.filter((flag) => !present.some((each) => textOf(each) === flag))
  const asElements = (names: readonly string[]): NewElement[] =>
    names.map((content) => ({ name: 'guest_flag', content }))
  if (missing.length === 0) return []
  const container = child(element, 'guest_flags')
  if (!container) return insertAfter(source, anchor(element), [{ name: 'guest_flags', content: asElements(missing) }])
  const last = present.at(-1)
  if (!last) return replaceContent(source, container, asElements(missing))
  const none = present.find((each) => /^(0|0UL|)$/.test(textOf(each)))
  const [first = '', ...rest] = missing
  if (!none) return insertAfter(source, last, asElements(missing))
  return [...setText(source, none, first), ...(rest.length > 0 ? insertAfter(source, none, asElements(rest)) : [])]
}

function editLayout3({ source }: Scenario, { element }: ScenarioVm): Edit[] {
  const wanted = { nested_virtualization_support: 'y', lapic_passthrough: 'y', console_vuart: 'PCI' }
  const missing: NewElement[] = []
  const edits = Object.entries(wanted).flatMap(([name, value]) => {
    const found = child(element, name)
    if (found) return setText(source, found, value)
    missing.push({ name, content: value })
    return []
  })
  return missing.length > 0 ? [...edits, ...insertAfter(source, anchor(element), missing)] : edits
}

function editCpus(
  { source, layout }: Scenario,
  { element, cpus }: ScenarioVm,
  wanted: readonly number[] | undefined,
): Edit[] {
  if (!wanted || wanted.join() === cpus?.join()) return []
  const affinity = child(element, 'cpu_affinity')
  const [realTime] = affinity ? descendants(affinity, 'real_time_vcpu') : []
  const content = wanted.map((cpu): NewElement => {
    const id = { name: 'pcpu_id', content: String(cpu) }
    if (layout === 2) return id
    return { name: 'pcpu', content: realTime ? [id, { name: 'real_time_vcpu', content: textOf(realTime) }] : [id] }
  })
  return affinity
    ? replaceContent(source, affinity, content)
    : insertAfter(source, anchor(element), [{ name: 'cpu_affinity', content }])
}

/** New elements come behind the name: the order is free (xs:all). */
const anchor = (vm: XmlElement) => child(vm, 'name') ?? need(vm, 'vm_type')

function need(parent: XmlElement, name: string, found: XmlElement | undefined = child(parent, name)): XmlElement {
  if (found) return found
  throw new NestvmError('BAD_SCENARIO', `the scenario has no ${name} in ${parent.name}`)
}
