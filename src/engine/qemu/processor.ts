import * as z from 'zod'
import type { Comparison } from '../../host/rules/table.ts'
import type { Qmp } from './qmp.ts'

/** What KVM and QEMU can give a guest with `-cpu host`, by QEMU's names. */
export interface Processor {
  /** What tells models apart: `vendor`, `family`, `model` and `stepping`; nothing on arm64. */
  model: Record<string, string>
  features: string[]
}

const expansionSchema = z.object({ model: z.object({ props: z.record(z.string(), z.unknown()) }) })

/** Where this QEMU runs. */
export function hostProcessor(qmp: Qmp): Promise<Processor> {
  return processorOf(qmp, { name: 'host' })
}

/** What a model of QEMU's has by its definition, with these features on or off; of `host` and `max`, what it has here. */
export async function processorOf(
  qmp: Qmp,
  model: { name: string; props?: Record<string, boolean> },
): Promise<Processor> {
  return readProcessor(await qmp.execute('query-cpu-model-expansion', { type: 'full', model }))
}

const modelKeys = ['vendor', 'family', 'model', 'stepping']

/** From the answer of QMP's `query-cpu-model-expansion`. */
export function readProcessor(answer: unknown): Processor {
  const { props } = expansionSchema.parse(answer).model
  return {
    model: Object.fromEntries(modelKeys.flatMap((key) => (key in props ? [[key, String(props[key])]] : []))),
    features: Object.keys(props)
      .filter((name) => props[name] === true)
      .sort(),
  }
}

/** How the other side's differs, as rules of processors name it (host/rules), and in what. */
export interface Difference {
  processor: Comparison
  /** A sentence's part about the other side: `it lacks avx`. */
  what?: string
}

/** For a guest that has all of this side's. */
export function processorDifference(here: Processor, there: Processor): Difference {
  const missing = here.features.filter((name) => !there.features.includes(name))
  if (here.model.vendor !== there.model.vendor) return { processor: 'maker', what: 'it is of another maker' }
  if (missing.length > 0) return { processor: 'fewer', what: `it lacks ${once(missing).join(', ')}` }
  const key = modelKeys.find((name) => here.model[name] !== there.model[name])
  if (key) return { processor: 'model', what: `its ${key} is ${there.model[key]}, not ${here.model[key]}` }
  const more = there.features.filter((name) => !here.features.includes(name))
  return more.length > 0 ? { processor: 'more', what: `it also has ${once(more).join(', ')}` } : { processor: 'same' }
}

/** QEMU has some by several spellings: sse4-1, sse4.1 and sse4_1. */
function once(features: readonly string[]): string[] {
  const spelling = (name: string) => name.replaceAll(/[._]/g, '-')
  return [...new Map(features.toReversed().map((name) => [spelling(name), name])).values()].reverse()
}
