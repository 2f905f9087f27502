import { NestvmError } from '../../store/error.ts'
import type { FileStep, Plan } from '../plan.ts'
import { withNesting } from './edit.ts'
import { type KernelConfigFault, kernelConfigFaults } from './kernel-config.ts'
import { type Assignment, forbidden, remarks } from './restrictions.ts'
import { parseScenario, serviceVm, vmNamed } from './scenario.ts'

export interface AcrnRequest {
  scenario?: { path: string; text: string }
  /** Where the edited scenario goes, and what is there; the scenario itself unless given. */
  output?: { path: string; text: string | undefined }
  /** Which VM is meant; the Service VM unless given. */
  vm?: string
  /** Physical CPUs by the names or ids of VMs; '' is the Service VM. */
  cpus: ReadonlyMap<string, readonly number[]>
  kernelConfig?: { path: string; text: string }
}

/**
 * The edit of a scenario that lets the Service VM run KVM. Throws `BAD_SCENARIO`, `NO_SUCH_VM`, `ACRN_FORBIDDEN` with
 * `details.reasons` where ACRN would not run it, and `ACRN_KERNEL_CONFIG` when the Service VM's kernel cannot.
 */
export function planAcrn(request: AcrnRequest): Plan {
  const kernelNotes = request.kernelConfig ? checkKernel(request.kernelConfig) : []
  if (!request.scenario)
    return {
      platform: 'acrn',
      effect: 'already',
      steps: [],
      notes: kernelNotes,
      summary: 'the kernel’s configuration lets KVM run in the Service VM',
    }
  const { path, text } = request.scenario
  const scenario = parseScenario(text, path)
  const service = serviceVm(scenario, path)
  const meant = request.vm === undefined ? service : vmNamed(scenario, request.vm)
  const assignment: Assignment = new Map(
    [...request.cpus].map(([name, list]) => [(name === '' ? service : vmNamed(scenario, name)).id, list]),
  )
  const reasons = [
    ...(meant === service
      ? []
      : [`${meant.name} is a ${meant.kind} VM: ACRN offers nested virtualization to the Service VM alone`]),
    ...forbidden(scenario, service, assignment),
  ]
  if (reasons.length > 0) throw refusal(path, reasons)
  const after = withNesting(scenario, service, assignment)
  const target = request.output ?? request.scenario
  const step: FileStep = {
    ...{ kind: 'file', path: target.path, before: target.text, after, compareWith: { path, text } },
    why: `${service.name} may run KVM guests`,
  }
  const steps = after === target.text ? [] : [step]
  return {
    ...{ platform: 'acrn', steps },
    effect: steps.length > 0 ? 'elsewhere' : 'already',
    notes: [...remarks(scenario, service, assignment), ...kernelNotes, 'build ACRN with the scenario, and install it'],
    summary:
      steps.length > 0
        ? `${service.name} of ${path} is to have nested virtualization`
        : `${target.path} has nested virtualization for ${service.name} already`,
  }
}

function refusal(path: string, reasons: string[]): NestvmError {
  const list = reasons.length === 1 ? ` ${reasons[0]}` : `\n${reasons.map((reason) => `  - ${reason}`).join('\n')}`
  const shares = reasons.some((reason) => reason.includes('share'))
  return new NestvmError('ACRN_FORBIDDEN', `ACRN would not run nested guests with ${path}:${list}`, {
    hint: shares
      ? '--cpus VM=LIST gives VMs physical CPUs of their own; or take those that share out of the scenario'
      : undefined,
    details: { path, reasons },
  })
}

function checkKernel({ path, text }: { path: string; text: string }): string[] {
  const faults = kernelConfigFaults(text)
  const said = ({ option, found, why }: KernelConfigFault) => `${option} is ${found}: ${why}`
  const fatal = faults.filter(({ required }) => required)
  if (fatal.length === 0) return faults.map((fault) => `${path}: ${said(fault)}`)
  throw new NestvmError(
    'ACRN_KERNEL_CONFIG',
    `the Service VM's kernel cannot run nested guests by ${path}:\n${fatal.map((fault) => `  - ${said(fault)}`).join('\n')}`,
    {
      hint: `scripts/config --file ${path} ${fatal.map(({ option }) => `--enable ${option.slice('CONFIG_'.length)}`).join(' ')} && make olddefconfig`,
      details: { path, faults },
    },
  )
}
