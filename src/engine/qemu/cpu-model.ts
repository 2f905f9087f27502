import * as z from 'zod'
import { NestvmError } from '../../store/error.ts'
import type { Accel } from '../architecture.ts'
import { hostProcessor, type Processor, processorOf } from './processor.ts'
import type { Qmp } from './qmp.ts'

/** A processor model of QEMU's by its name and version, such as `EPYC-v4`, and features that are switched on or off. */
export interface CpuModel {
  name: string
  features: Record<string, boolean>
}

const pattern = /^([A-Za-z0-9][\w.-]*)((?:,[a-z0-9][\w.-]*=(?:on|off))*)$/

/** As QEMU's -cpu takes it: `EPYC-v4`, `Opteron_G2,vme=off,svm=on`. Throws `BAD_CPU_MODEL`. */
export function parseCpuModel(text: string): CpuModel {
  const [, name, more = ''] = pattern.exec(text) ?? []
  if (name === undefined) {
    throw new NestvmError('BAD_CPU_MODEL', `${JSON.stringify(text)} names no processor model`, {
      hint: 'write it as QEMU does: EPYC-v4, or Haswell-v4,pcid=off',
      exitStatus: 2,
    })
  }
  const switches = more.split(',').filter(Boolean)
  return { name, features: Object.fromEntries(switches.map((one) => [one.split('=')[0], one.endsWith('=on')])) }
}

export function cpuModelText({ name, features }: CpuModel): string {
  return [name, ...Object.entries(features).map(([feature, on]) => `${feature}=${on ? 'on' : 'off'}`)].join(',')
}

const definitionsSchema = z.array(
  z.object({
    name: z.string(),
    'alias-of': z.string().optional(),
    'migration-safe': z.boolean().optional(),
    deprecated: z.boolean().optional(),
    'unavailable-features': z.array(z.string()).default([]),
  }),
)

type Definition = z.output<typeof definitionsSchema>[number]

/** All that a QEMU tells of the models that it knows, and what it can give guests where it runs. */
export interface Offer {
  definitions: Definition[]
  whole: Processor
}

export async function readOffer(qmp: Qmp, accel: Accel): Promise<Offer> {
  const definitions = definitionsSchema.parse(await qmp.execute('query-cpu-definitions'))
  return { definitions, whole: accel === 'kvm' ? await hostProcessor(qmp) : await processorOf(qmp, { name: 'max' }) }
}

/** By the vendor that CPUID names: QEMU itself tells whose processors its models are only by their names. */
const makers: Record<string, RegExp> = {
  AuthenticAMD: /^(Opteron_G|EPYC)/,
  HygonGenuine: /^Dhyana/,
  GenuineIntel:
    /^(Conroe|Penryn|Nehalem|Westmere|SandyBridge|IvyBridge|Haswell|Broadwell|Skylake|Cascadelake|Cooperlake|Icelake|SapphireRapids|GraniteRapids|DiamondRapids|SierraForest|ClearwaterForest|Denverton|Snowridge|KnightsMill)/,
}

/**
 * The model nearest to the machine's processor, without what the machine lacks of it: the one with the fewest features
 * that only one of the two has, as libvirt's host-model is chosen; of equals the one that lacks less, and the newer.
 * Throws `CPU_MODEL_NOT_OFFERED` where it is of a maker without models.
 */
export async function nearestModel(qmp: Qmp, { definitions, whole }: Offer): Promise<CpuModel> {
  const own = makers[whole.model.vendor ?? '']
  const near: { model: CpuModel; distance: number; lacks: number }[] = []
  for (const { name, ...definition } of definitions) {
    if (!own?.test(name) || definition['alias-of'] !== undefined || definition.deprecated) continue
    const { features } = await processorOf(qmp, { name })
    const lacks = definition['unavailable-features']
    near.push({
      model: switched({ name, features: {} }, lacks, false),
      distance: exclusive(features, whole.features) + exclusive(whole.features, features),
      lacks: lacks.length,
    })
  }
  const newer = new Intl.Collator('en', { numeric: true })
  near.sort((a, b) => a.distance - b.distance || a.lacks - b.lacks || newer.compare(b.model.name, a.model.name))
  const [nearest] = near
  if (nearest) return nearest.model
  throw new NestvmError('CPU_MODEL_NOT_OFFERED', `QEMU has no models of a processor of ${whole.model.vendor}`, {
    hint: 'name one: --migratable=MODEL',
  })
}

function exclusive(these: readonly string[], those: readonly string[]): number {
  return these.filter((name) => !those.includes(name)).length
}

/**
 * The model that was asked for, by its name with the version. Throws `CPU_MODEL_NOT_OFFERED` where QEMU has none of that
 * name, or where it is no model but what this machine has (`host`, `max`).
 */
export function definedModel({ definitions }: Offer, { name, features }: CpuModel): CpuModel {
  const definition = definitions.find((other) => other.name === name)
  if (definition?.['migration-safe']) return { name: definition['alias-of'] ?? name, features }
  const why = definition ? 'is not the same processor on all machines' : 'is no processor model that QEMU knows here'
  throw new NestvmError('CPU_MODEL_NOT_OFFERED', `${name} ${why}`, {
    hint: offeredHint(definitions),
    details: { model: name, offered: offered(definitions) },
    exitStatus: 2,
  })
}

/**
 * With what a guest needs besides: on KVM the timer, as its machine has no other; a hypervisor the extension, with page
 * tables that the processor walks; others nothing of it. What the model says itself counts.
 */
export function completed({ name, features }: CpuModel, { whole }: Offer, accel: Accel, nested: boolean): CpuModel {
  const has = (feature: string) => whole.features.includes(feature)
  const extension = has('vmx') ? ['vmx'] : ['svm', 'npt'].filter((part) => part === 'svm' || has(part))
  const added = [...(accel === 'kvm' && has('tsc-deadline') ? ['tsc-deadline'] : []), ...(nested ? extension : [])].map(
    (feature): [string, boolean] => [feature, true],
  )
  const hidden: Record<string, boolean> = nested ? {} : { svm: false, vmx: false }
  return { name, features: { ...hidden, ...Object.fromEntries(added), ...features } }
}

/** The parts of the extensions: QEMU does not name them among a model's unavailable features while those are off. */
const extensionPart =
  /^(vmx-.*|npt|lbrv|svm-lock|nrip-save|tsc-scale|vmcb-clean|flushbyasid|decodeassists|pause-filter|pfthreshold|avic|v-vmsave-vmload|vgif|vnmi|svme-addr-chk)$/

/** The features of a model that a QEMU cannot give where it runs; undefined where it has no such model. */
export async function lacking(qmp: Qmp, { definitions, whole }: Offer, model: CpuModel): Promise<string[] | undefined> {
  const definition = definitions.find(({ name }) => name === model.name)
  if (!definition) return undefined
  const { features } = await processorOf(qmp, { name: model.name, props: model.features })
  const asked = Object.keys(model.features).filter((feature) => model.features[feature])
  const needed = [...asked, ...features.filter((feature) => extensionPart.test(feature))]
  const missing = needed.filter((feature) => !whole.features.includes(feature))
  const unavailable = definition['unavailable-features'].filter((feature) => model.features[feature] !== false)
  return [...new Set([...unavailable, ...missing])].sort()
}

/** Throws `CPU_MODEL_NOT_OFFERED`, which names what is missing and what is offered. */
export function checkLacking(missing: readonly string[], model: CpuModel, { definitions }: Offer, where: string): void {
  if (missing.length === 0) return
  const off = cpuModelText(switched(model, missing, false))
  throw new NestvmError(
    'CPU_MODEL_NOT_OFFERED',
    `${where} cannot offer ${model.name}: it lacks ${missing.join(', ')}`,
    {
      hint: `${missing.length > 8 ? '' : `--migratable=${off}, or `}${offeredHint(definitions)}`,
      details: { model: model.name, missing, offered: offered(definitions) },
      exitStatus: 2,
    },
  )
}

/** The model with these features on or off. */
export function switched({ name, features }: CpuModel, which: readonly string[], on: boolean): CpuModel {
  return { name, features: { ...features, ...Object.fromEntries(which.map((feature) => [feature, on])) } }
}

function offeredHint(definitions: readonly Definition[]): string {
  return `--migratable alone for the nearest; whole are ${offered(definitions).join(', ')}`
}

/** Models that are whole here, by their names with the version, but for those of 32 bits. */
function offered(definitions: readonly Definition[]): string[] {
  return definitions
    .filter((one) => one['migration-safe'] && !one.deprecated && one['alias-of'] === undefined)
    .filter((one) => one['unavailable-features'].length === 0)
    .map(({ name }) => name)
    .filter((name) => !/^(base|486|pentium|athlon|coreduo|n270|qemu32|kvm32)/.test(name))
    .sort()
}
