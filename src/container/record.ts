import * as z from 'zod'
import { imageConfigSchema } from '../image/config.ts'

/** What a later command has to know of a guest's container. */
export const containerSchema = z.object({
  /** The image, in its full spelling, and the digest of its squashfs. */
  reference: z.string(),
  digest: z.string(),
  config: imageConfigSchema,
  passwd: z.string(),
  group: z.string(),
  privileged: z.boolean(),
})

export type ContainerRecord = z.infer<typeof containerSchema>
