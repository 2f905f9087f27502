import { join } from 'node:path'
import * as z from 'zod'
import { readJson } from '../../store/write.ts'
import { kernelSchema } from '../manifest.ts'

/** At the root of a guest-hypervisor layer: what it was made of. */
export const layerRecord = 'bundle.json'

const recordSchema = z.object({
  schema: z.literal(1),
  arch: z.string(),
  /** Of nestvm's part; versions of nestvm that have it in common understand the layer alike. */
  recipe: z.string(),
  /** Of the recipe and the packages. */
  digest: z.string(),
  kernelRelease: z.string(),
  kernel: kernelSchema.optional(),
})

type LayerRecord = z.infer<typeof recordSchema>

export function formatLayerRecord(record: LayerRecord): string {
  return `${JSON.stringify(record)}\n`
}

/** Undefined where there is none. */
export async function readLayerRecord(layer: string): Promise<LayerRecord | undefined> {
  return readJson(join(layer, layerRecord), recordSchema)
}
